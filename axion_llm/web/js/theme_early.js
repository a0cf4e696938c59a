// Runs before the page is drawn, so that it never flashes in the wrong colours. Not a module: those wait.
try {
  const theme = localStorage.getItem("axion.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // no storage: as the system has it
}
