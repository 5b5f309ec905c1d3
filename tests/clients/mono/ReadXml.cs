// Reads documents as XenCenter does, with .NET's XmlDocument:
// "KIND BYTES\n" and the document on stdin, "BYTES\n" and JSON on stdout.

using System;
using System.Collections.Generic;
using System.IO;
using System.Text;
using System.Xml;

static class ReadXml
{
    // What XenCenter looks up by name, anywhere in a document.
    static readonly string[] Sought = { "entry", "Process", "docker_info", "docker_version" };

    static void Main()
    {
        Stream input = Console.OpenStandardInput(), output = Console.OpenStandardOutput();
        for (string header = ReadLine(input); header != null; header = ReadLine(input))
        {
            string[] words = header.Split(' ');
            string text = Encoding.UTF8.GetString(ReadBytes(input, int.Parse(words[1])));
            byte[] body = Encoding.ASCII.GetBytes(Read(words[0], text));
            byte[] length = Encoding.ASCII.GetBytes(body.Length + "\n");
            output.Write(length, 0, length.Length);
            output.Write(body, 0, body.Length);
            output.Flush();
        }
    }

    static string Read(string kind, string text)
    {
        var json = new StringBuilder();
        try
        {
            // A plugin's result: what follows a case-sensitive "True".
            if (kind.StartsWith("get_", StringComparison.Ordinal))
            {
                if (!text.StartsWith("True", StringComparison.Ordinal))
                    throw new XmlException("the result does not start with True");
                text = text.Substring(4);
            }
            var document = new XmlDocument { XmlResolver = null };
            document.LoadXml(text);
            json.Append("{\"root\":");
            Tree(json, document.DocumentElement);
            foreach (string name in Sought)
            {
                json.Append(',');
                Quote(json, name);
                json.Append(":[");
                string comma = "";
                foreach (XmlNode node in document.GetElementsByTagName(name))
                {
                    json.Append(comma);
                    Fields(json, node);
                    comma = ",";
                }
                json.Append(']');
            }
            return json.Append('}').ToString();
        }
        catch (XmlException error)
        {
            json.Clear().Append("{\"error\":");
            Quote(json, error.Message);
            return json.Append('}').ToString();
        }
    }

    // {"child": "its InnerText", ...}, the first of each name
    static void Fields(StringBuilder json, XmlNode node)
    {
        var seen = new HashSet<string>();
        json.Append('{');
        foreach (XmlNode child in node.ChildNodes)
        {
            if (child.NodeType != XmlNodeType.Element || !seen.Add(child.Name))
                continue;
            if (seen.Count > 1)
                json.Append(',');
            Quote(json, child.Name);
            json.Append(':');
            Quote(json, node[child.Name].InnerText);
        }
        json.Append('}');
    }

    // ["name", {"attribute": "value"}, [children], "text"]
    static void Tree(StringBuilder json, XmlNode node)
    {
        json.Append('[');
        Quote(json, node.Name);
        json.Append(",{");
        string comma = "";
        foreach (XmlAttribute attribute in node.Attributes)
        {
            json.Append(comma);
            Quote(json, attribute.Name);
            json.Append(':');
            Quote(json, attribute.Value);
            comma = ",";
        }
        json.Append("},[");
        comma = "";
        var text = new StringBuilder();
        foreach (XmlNode child in node.ChildNodes)
        {
            if (child.NodeType == XmlNodeType.Element)
            {
                json.Append(comma);
                Tree(json, child);
                comma = ",";
            }
            else
            {
                text.Append(child.Value);
            }
        }
        json.Append("],");
        Quote(json, text.ToString());
        json.Append(']');
    }

    static void Quote(StringBuilder json, string text)
    {
        json.Append('"');
        foreach (char c in text)
        {
            if (c < ' ' || c > '~' || c == '"' || c == '\\')
                json.Append("\\u").Append(((int)c).ToString("x4"));
            else
                json.Append(c);
        }
        json.Append('"');
    }

    static string ReadLine(Stream input)
    {
        var line = new StringBuilder();
        for (int c = input.ReadByte(); c != '\n'; c = input.ReadByte())
        {
            if (c < 0)
                return null;
            line.Append((char)c);
        }
        return line.ToString();
    }

    static byte[] ReadBytes(Stream input, int count)
    {
        var bytes = new byte[count];
        for (int done = 0; done < count;)
        {
            int got = input.Read(bytes, done, count - done);
            if (got <= 0)
                throw new EndOfStreamException();
            done += got;
        }
        return bytes;
    }
}
