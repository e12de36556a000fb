"""A manifest -> other people's formats, and back."""
