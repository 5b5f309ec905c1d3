"""What goes into guests, checked by the programs that read it there."""
