"""The tests. Every directory below is a package, so that modules of one name do not collide."""
