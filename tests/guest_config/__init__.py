"""Files for guests, checked by the programs that read them there."""
