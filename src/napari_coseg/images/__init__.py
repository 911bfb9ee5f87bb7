"""Read images and volumes, with their axes, intensities and geometry."""
