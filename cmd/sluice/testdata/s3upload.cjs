// Uploads to an S3 endpoint with the SDK for JavaScript: node s3upload.cjs FILE
// puts, uploads FILE in parts, copies and deletes; with "refused" it only puts.
const { createReadStream, readFileSync } = require('node:fs')
const { S3Client, PutObjectCommand, CopyObjectCommand, DeleteObjectCommand, GetObjectCommand } = require('@aws-sdk/client-s3')
const { Upload } = require('@aws-sdk/lib-storage')

const [file, only] = process.argv.slice(2)
const client = new S3Client({ endpoint: process.env.ENDPOINT, region: 'us-east-1', forcePathStyle: true })
const Bucket = 'uploads'

async function main () {
  if (only) {
    await client.send(new PutObjectCommand({ Bucket, Key: `js/${only}.txt`, Body: 'hello' }))
    return
  }
  await client.send(new PutObjectCommand({ Bucket, Key: 'js/small.txt', Body: 'hello' }))
  await new Upload({ client, params: { Bucket, Key: 'js/large.bin', Body: createReadStream(file) }, partSize: 5 << 20 }).done()
  const back = await client.send(new GetObjectCommand({ Bucket, Key: 'js/large.bin' }))
  if (!readFileSync(file).equals(Buffer.from(await back.Body.transformToByteArray()))) throw new Error('other bytes come back')
  await client.send(new CopyObjectCommand({ Bucket, Key: 'js/copy.txt', CopySource: 'uploads/js/small.txt' }))
  await client.send(new DeleteObjectCommand({ Bucket, Key: 'js/small.txt' }))
}

main().catch((err) => { console.error(`${err.name}: ${err.message}`); process.exit(1) })
