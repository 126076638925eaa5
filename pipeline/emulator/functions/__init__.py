"""Where invocations run: the function with its timeout and concurrency, and the kinds of execution environment."""
