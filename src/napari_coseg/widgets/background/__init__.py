"""The worker process beside the window, its messages, and the jobs that several docks share."""
