"""What several rooms need of an image: area resampling, JPEG, stain separation."""
