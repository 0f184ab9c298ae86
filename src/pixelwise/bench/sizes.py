"""How large the work of the benchmark is: the same for Pixelwise and for its rivals, whose Python reads it too."""

BATCH, CHANNELS, CLASSES, PATCH_PX = 4, 3, 2, 256
"""Of training and inference."""

GPU_BATCH, GPU_PATCH_PX = 16, 512
"""The same on a GPU, which is not filled by less; fewer where its memory does not hold as many."""

SMALL = ((8, 256, 16), (16, 256, 8), (32, 384, 16))
"""Width, edge and number of patches of networks that leave a GPU waiting for the processor, or nearly so."""

SMALL_DEPTH = 5
"""Of these."""

GPU_STEPS = 8
"""So many steps are timed together on a GPU, which may be told of the next ones while it computes."""

PLAIN_WIDTH, PLAIN_DEPTH = 64, 4
"""The plain U-Net of 64 to 1024 features, padded and normalised: 31.0 million parameters."""

LARGE_WIDTH, LARGE_DEPTH, LARGE_PX, TILE_PX, OVERLAP = 32, 4, 4096, 512, 0.5
"""Of the large image, and of the network that sees it in tiles."""

IMAGE_PX = 512
"""Edge of the images that samples are drawn from."""

IMAGES = 16
"""So many images lie in memory, to train from."""

SAMPLES_AT_LEAST, STEPS_AT_LEAST = 5.0, 10.0
"""Seconds that samples, and steps of a network, are measured for."""
