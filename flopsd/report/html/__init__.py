"""A report as one HTML file, and what the live page shares with it."""
