"""Images and volumes from files: what their axes, values and pixel sizes mean."""
