"""The commands ``scikd stack``: tables of out-of-fold predictions in, a stack and a page out."""
