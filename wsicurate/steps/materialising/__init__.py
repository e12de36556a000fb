"""Parts of `materialise`: what is taken of a slide, where its pixels come from, and what goes with them."""
