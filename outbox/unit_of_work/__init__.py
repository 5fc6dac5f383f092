"""One piece of work in one transaction: what its end means.

`function_run` judges a run of the user's function. `commit` judges the answer to COMMIT.
"""
