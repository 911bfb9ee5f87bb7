"""The Refine dock: corrections of one task help the other, looked at before they are taken."""
