"""After a comparison: which baseline counts, what is looked at again, and when it is the stack that moved."""
