"""The built files of the pages of `slmx web` and `slmx serve`. `npm run build` makes them from the sources beside."""
