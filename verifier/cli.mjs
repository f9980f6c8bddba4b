#!/usr/bin/env node
// node verifier/cli.mjs LEDGER --key FILE [...]: the verifier as a command.
import { USAGE, command } from "./command.mjs";

const USAGE_STATUS = 2;

try {
  const { status, out } = await command(process.argv.slice(2));
  console.log(out);
  process.exitCode = status;
} catch (error) {
  console.error(`${/** @type {Error} */ (error).message}\n${USAGE}`);
  process.exitCode = USAGE_STATUS;
}
