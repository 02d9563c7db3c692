"""`make model-test`: a model tried by its author as the server would run it."""
