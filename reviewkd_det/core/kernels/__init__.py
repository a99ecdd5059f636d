"""Functions with a hand-written gradient, which keep or touch less memory than autograd would."""
