"""The layouts in which dictionaries are published, one file each; ``loading`` has the table."""
