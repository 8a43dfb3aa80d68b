"""Where Nova looks for ``compute_driver = splitimage.SplitImageDriver``."""

from splitimage_driver.nova.driver import SplitImageDriver

__all__ = ["SplitImageDriver"]
