"""Studies: one config over folds, seeds and varied fields, every result a row of a table."""
