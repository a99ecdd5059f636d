"""Reading a classifier's levels: traced, tapped, preprocessed."""
