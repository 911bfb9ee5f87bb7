"""The Refine dock: corrections of one task improve the other, with a preview."""
