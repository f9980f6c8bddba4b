// Public keys (Ed25519, P-256) and the signatures of an envelope.
import { Fault, Refusal, base64, hex, isObject, isText, joined, owned, require, utf8 } from "./basics.js";
import { parseBytes } from "./json.js";
import { sha256 } from "./sha256.js";

const _MOST_SIGNATURES = 64;
const _MOST_BYTES = 64 * 1024 * 1024;
const _ED25519 = "302a300506032b6570032100";
const _P256 = "3059301306072a8648ce3d020106082a8648ce3d03010703420004";
/** The points of order 1, 2, 4 and 8, in every encoding, without the bit of the sign. */
const _SMALL_ORDER = new Set([
  "00".repeat(32),
  "01" + "00".repeat(31),
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "ec" + "ff".repeat(30) + "7f",
  "ed" + "ff".repeat(30) + "7f",
  "ee" + "ff".repeat(30) + "7f",
]);

/** @typedef {{id: string, kind: "Ed25519" | "P-256", der: Uint8Array, name: string}} Key */

/** @param {string} pem @param {string} name @returns {Key} */
export function readKey(pem, name) {
  const match = /-----BEGIN PUBLIC KEY-----([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----/.exec(pem);
  if (!match) throw new Refusal("key_not_allowed", `${name} is not a public key in PEM`);
  const many = pem.split("-----BEGIN PUBLIC KEY-----").length - 1;
  require(many === 1, "key_not_allowed", `${name} has ${many} keys: give each in a file of its own`);
  const der = base64(match[1].replace(/\s/g, ""), name);
  const text = hex(der), id = hex(sha256(der));
  if (text.startsWith(_ED25519) && der.length === 44) {
    const point = der.slice(12);
    point[31] &= 0x7f;
    require(!_SMALL_ORDER.has(hex(point)), "key_not_allowed", `${name} is an Ed25519 key of small order: anybody can sign with it`);
    return { id, kind: "Ed25519", der, name };
  }
  if (text.startsWith(_P256) && der.length === 91) return { id, kind: "P-256", der, name };
  const other = "is neither an Ed25519 key nor one on P-256 in its usual form (openssl pkey -pubin -ec_conv_form uncompressed)";
  throw new Refusal("key_not_allowed", `${name} ${other}`);
}

/** r and s of a signature in DER, as WebCrypto takes them; null: it is none.
 * @param {Uint8Array} der */
export function rawSignature(der) {
  const raw = new Uint8Array(64);
  if (der[0] !== 0x30 || der[1] !== der.length - 2) return null;
  let at = 2;
  for (const end of [32, 64]) {
    const size = der[at + 1];
    let number = der.subarray(at + 2, at + 2 + size);
    if (der[at] !== 0x02 || number[0] & 0x80) return null;
    if (number[0] === 0 && size > 1) {
      if (!(number[1] & 0x80)) return null;
      number = number.subarray(1);
    }
    if (number.length > 32) return null;
    raw.set(number, end - number.length);
    at += 2 + size;
  }
  return at === der.length ? raw : null;
}

/** @param {Key} key @returns {Promise<CryptoKey>} */
async function imported(key) {
  const subtle = globalThis.crypto?.subtle;
  if (!subtle) throw new Fault("this browser has no WebCrypto here: open the page from disk or over https");
  const name = key.kind === "Ed25519" ? { name: "Ed25519" } : { name: "ECDSA", namedCurve: "P-256" };
  try {
    return await subtle.importKey("spki", owned(key.der), name, false, ["verify"]);
  } catch (error) {
    if (/** @type {Error} */ (error).name !== "NotSupportedError") {
      throw new Refusal("key_not_allowed", `${key.name} has a point that is not on its curve`);
    }
    const hint = "use a current Chrome, Edge, Firefox or Safari, or Node 20";
    throw new Fault(`this browser cannot check ${key.kind} signatures: ${hint}`);
  }
}

/** @param {Key} key @param {Uint8Array} signature @param {Uint8Array} text */
async function verifies(key, signature, text) {
  const held = await imported(key);
  if (key.kind === "Ed25519") {
    return signature.length === 64 && crypto.subtle.verify({ name: "Ed25519" }, held, owned(signature), owned(text));
  }
  const raw = rawSignature(signature);
  return raw !== null && crypto.subtle.verify({ name: "ECDSA", hash: "SHA-256" }, held, owned(raw), owned(text));
}

/** @typedef {{payload: Uint8Array, type: string, signatures: Uint8Array[], sha256: string}} Envelope */

/** @param {Uint8Array} bytes @returns {Envelope} */
export function readEnvelope(bytes) {
  require(bytes.length <= _MOST_BYTES, "envelope_too_large", "the ledger has more than 64 MiB");
  const found = parseBytes(bytes, "the ledger");
  require(isObject(found), "envelope_malformed", "the ledger is not a ledger, which is a JSON object");
  const { payload, payloadType, signatures } = found;
  require(isText(payload) && isText(payloadType), "envelope_malformed", "the ledger is not a DSSE envelope: payload and payloadType must be text");
  require(Array.isArray(signatures) && signatures.length, "no_signature", "the ledger is not signed: it has no signatures");
  require(signatures.length <= _MOST_SIGNATURES, "too_many_signatures", `the ledger has ${signatures.length} signatures; at most ${_MOST_SIGNATURES} are checked`);
  const held = signatures.map((/** @type {any} */ one) => {
    const whole = isObject(one) && isText(one.sig);
    require(whole, "envelope_malformed", "the ledger has a signature without the text 'sig'");
    return base64(one.sig, "a signature");
  });
  const content = base64(payload, "the payload");
  return { payload: content, type: payloadType, signatures: held, sha256: hex(sha256(content)) };
}

/** The keys that signed; fewer than required: refused.
 * @param {Envelope} envelope @param {Key[]} keys @param {number} threshold */
export async function checkSignatures(envelope, keys, threshold) {
  const head = `DSSEv1 ${utf8(envelope.type).length} ${envelope.type} ${envelope.payload.length} `;
  const text = joined(utf8(head), envelope.payload);
  /** @type {Map<string, Key>} */
  const signed = new Map();
  for (const key of keys) {
    for (const signature of envelope.signatures) {
      if (!signed.has(key.id) && (await verifies(key, signature, text))) signed.set(key.id, key);
    }
  }
  const found = `${threshold} of the keys that you trust must have signed, and ${signed.size} did: the ledger was changed after it`;
  require(signed.size >= Math.max(1, threshold), "too_few_signatures", `${found} was signed, or other keys signed it`);
  return [...signed.values()];
}
