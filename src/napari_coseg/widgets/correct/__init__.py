"""The Correct dock: objects and regions corrected by hand, every action one undo step."""
