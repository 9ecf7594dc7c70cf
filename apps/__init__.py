"""What people start: command-line programs, the demo, the report viewer's sources, cluster launchers."""
