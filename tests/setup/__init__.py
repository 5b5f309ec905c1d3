"""Set-up of a machine for work on the project, and the tests of it. Standard library only."""
