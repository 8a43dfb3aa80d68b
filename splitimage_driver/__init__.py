"""splitimage-driver: one composite image, any combination of its parts."""
