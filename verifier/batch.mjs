// Many ledgers in one process, for tests: a JSON list of {folder, arguments} on stdin, an answer a line on stdout.
import fs from "node:fs";
import { command } from "./command.mjs";

for (const { folder, arguments: words } of JSON.parse(fs.readFileSync(0, "utf8"))) {
  try {
    console.log(JSON.stringify(await command([...words, "--json"], folder)));
  } catch (error) {
    console.log(JSON.stringify({ status: -1, out: "{}", fault: String(error) }));
  }
}
