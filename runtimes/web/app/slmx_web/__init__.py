"""The built files of the web page that `slmx web` copies. `npm run build` makes them from the sources beside."""
