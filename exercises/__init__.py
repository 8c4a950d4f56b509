"""exercises: write the operations of a detector yourself; the notes' own proofs grade them."""
