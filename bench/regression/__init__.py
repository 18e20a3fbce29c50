"""The regression check: the reproduced loss against references, backends against each other, speed by ratios."""
