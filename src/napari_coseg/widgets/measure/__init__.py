"""The Measure dock: tables and plots that select in the viewer, and the reverse."""
