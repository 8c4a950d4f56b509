"""docs: what a reader uses beside the code. `docs.site` makes a web site of it."""
