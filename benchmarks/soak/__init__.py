"""Mixed traffic with faults for half an hour: every decision beside the naive reference's, and what must not grow."""
