"""The model small as an int8 bundle, in the folder `small`. slmx finds it by this name."""
