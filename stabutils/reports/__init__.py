"""The same report for predictions of any system."""
