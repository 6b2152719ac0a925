"""A package of plugins as a stranger might write it, some of them broken."""
