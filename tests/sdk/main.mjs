// Runs the checks: all of them, or those named on the command line.

import { close } from './support/report.mjs';

const THEMES = ['engine', 'offline', 'remote', 'local', 'python', 'browser', 'keys', 'outages', 'featbit'];

for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));

const named = process.argv.slice(2);
for (const theme of named.length ? named : THEMES) {
  if (!THEMES.includes(theme)) {
    console.error(`there is no theme '${theme}': ${THEMES.join(' ')}`);
    process.exit(2);
  }
  const { run } = await import(`./${theme}.mjs`);
  await run();
}
process.exit(close());
