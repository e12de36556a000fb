"""Overview pixels -> tissue masks, artefact scores. Arrays in, arrays out."""
