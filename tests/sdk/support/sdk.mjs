// Where the published SDKs are: `run` installs them outside the tree and says where.

import { createRequire } from 'node:module';
import path from 'node:path';

const home = process.env.FLAGSIDE_SDK_HOME;
if (!home) throw new Error('FLAGSIDE_SDK_HOME is not set: start this through tests/sdk/run');

/** Loads a package, or a file of one. */
export const sdk = createRequire(path.join(home, 'package.json'));

/** A file of the browser client, to be served to a page. */
export const browserClient = sdk.resolve('@amplitude/experiment-js-client/dist/experiment.umd.js');

/** The Python that has the Python SDK. */
export const python = path.join(home, 'venv', 'bin', 'python');
