"""The Workspace dock, and what keeps every correction on the disk as it is made."""
