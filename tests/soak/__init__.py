"""Mixed traffic for a long time, and what it leaves behind: `make soak`."""
