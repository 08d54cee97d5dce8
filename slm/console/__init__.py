"""What people see of every command: errors, usage, help, lines on a terminal, and signals."""
