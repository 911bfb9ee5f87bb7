"""The Workspace dock, and what saves every correction to disk as it is made."""
