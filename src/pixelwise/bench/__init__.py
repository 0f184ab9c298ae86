"""How fast this machine is, and how much of that Pixelwise uses: figures that are measured, beside their ceiling."""
