"""What runs beside the window: its process, what is said to it, and the jobs all docks share."""
