"""graded: for each exercise its cases, a reference, and typical mistakes.

    run(operation, **inputs)    calls the reader's operation, and names its answers
    reference(**inputs)         the right answers: torch.nn, or the note where torch has none
    CASES                       the questions, from the easiest
    flawed(flaws)               a simple version of the operation with these mistakes in it; without flaws it is right
    MISTAKES                    name of a flaw → the sentence that the reader gets; from the likeliest to the rarest

A flaw is one change in `flawed`, so that two at once are a version as well; a test says that without any it is right.
"""
